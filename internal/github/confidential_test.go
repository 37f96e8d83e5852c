package github_test

import (
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/github"
)

func TestAnAddressWithASecretIsNotQuoted(t *testing.T) {
	for _, address := range []string{
		"https://x.example/%zz?sig=planted", "ftp://x.example/?sig=planted", "?sig=planted",
		"http://x.example/?sig=planted", "https:///queue?sig=planted", "https://me:planted@[::1",
	} {
		if u, err := github.Confidential(address); err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v, %v", address, u, err)
		}
	}
	for _, address := range []string{"https://x.example/queue?sig=a", "http://127.0.0.1:8080/queue/1"} {
		if _, err := github.Confidential(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
