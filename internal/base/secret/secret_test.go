package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/secret"
)

func TestNoFormatterPrintsASecret(t *testing.T) {
	const value = "ghp_hunter2"
	s := secret.New(value)
	type holder struct {
		Token secret.String
		Ptr   *secret.String
		inner secret.String
	}
	h := holder{Token: s, Ptr: &s, inner: s}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", s)
		fmt.Fprintf(&out, verb+"\n", h)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "token", s, "holder", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "token", s, "holder", h)
	if err := json.NewEncoder(&out).Encode(h); err != nil {
		t.Fatal(err)
	}
	for _, form := range []string{value, fmt.Sprintf("%x", value)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("output holds %q:\n%s", form, out.String())
		}
	}
	if s.Reveal() != value {
		t.Errorf("Reveal() = %q, want %q", s.Reveal(), value)
	}
}
