package protorunner

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

func TestBasesWithoutASlashLoseTheirLastPart(t *testing.T) {
	for base, want := range map[string]string{
		"http://h/run/": "http://h/run/acquirejob",
		"http://h/run":  "http://h/acquirejob",
		"http://h":      "http://h/acquirejob",
	} {
		got, err := resolve(base, "acquirejob")
		if err != nil || got != want {
			t.Errorf("resolve(%q) is %q, %v; want %q", base, got, err, want)
		}
	}
}

func TestAShortRSAPartIsRefused(t *testing.T) {
	part := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	params := map[string]string{
		"modulus": part(256), "exponent": part(3), "d": part(256), "p": part(127), "q": part(128),
		"dp": part(128), "dq": part(128), "inverseQ": part(128),
	}
	files := map[string]any{
		".runner":                map[string]string{"WorkFolder": "_work", "UseV2Flow": "True", "ServerUrlV2": "http://h/broker/"},
		".credentials":           map[string]any{"Scheme": "OAuth"},
		".credentials_rsaparams": params,
	}
	blob := map[string]string{}
	for name, v := range files {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		blob[name] = base64.StdEncoding.EncodeToString(b)
	}
	b, err := json.Marshal(blob)
	if err != nil {
		t.Fatal(err)
	}
	_, err = ParseJIT(base64.StdEncoding.EncodeToString(b))
	if err == nil || !strings.Contains(err.Error(), "RSA part p has 127 bytes instead of 128") {
		t.Errorf("the error is %v", err)
	}
}

func TestAnythingElseIsNoJITConfiguration(t *testing.T) {
	for _, text := range []string{"", "%%%", base64.StdEncoding.EncodeToString([]byte("<html>Unicorn!</html>")), base64.StdEncoding.EncodeToString([]byte("{}"))} {
		if _, err := ParseJIT(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
