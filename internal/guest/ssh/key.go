package ssh

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/base/secret"
)

// NewKey makes an ed25519 login key for one guest: the private half as PEM, the
// public one as a line of an authorized_keys file, without its end.
func NewKey() (private secret.String, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return secret.String{}, "", fmt.Errorf("cannot make a login key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		return secret.String{}, "", fmt.Errorf("cannot make a login key: %w", err)
	}
	sshPub, err := ssh.NewPublicKey(pub)
	if err != nil {
		return secret.String{}, "", fmt.Errorf("cannot make a login key: %w", err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sshPub)))
	return secret.New(string(pem.EncodeToMemory(block))), line, nil
}

// Public returns the public half of a login key, as a line of an
// authorized_keys file, without its end.
func Public(private secret.String) (string, error) {
	signer, err := ssh.ParsePrivateKey([]byte(private.Reveal()))
	if err != nil {
		return "", fmt.Errorf("cannot read the login key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), nil
}
