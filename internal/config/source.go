package config

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
)

// commandTimeout bounds a command that gives a secret.
const commandTimeout = 30 * time.Second

// maxSecret bounds a secret's length in bytes; what is longer is the wrong file.
const maxSecret = 64 << 10

// Source says where a secret is: one of the three.
type Source struct {
	Env     string  `yaml:"env,omitempty" doc:"The name of an environment variable of the agent." example:"GITHUB_TOKEN"`
	File    string  `yaml:"file,omitempty" doc:"A file that only its owner can read (mode 0600). Relative: to the configuration's folder." example:"/etc/tasuki/github-token"`
	Command Command `yaml:"command,omitempty" doc:"A program, with its arguments, that prints the secret. It has 30 s." example:"[security, find-generic-password, -w, -s, tasuki]"`
}

// IsZero says whether no source is named.
func (s Source) IsZero() bool { return s.Env == "" && s.File == "" && len(s.Command) == 0 }

// Read gets the secret, without the white space around it. No source is no
// secret and no error; a source without one is an error.
func (s Source) Read(ctx context.Context) (secret.String, error) {
	var value, from string
	var err error
	switch {
	case s.Env != "":
		value, from = os.Getenv(s.Env), fmt.Sprintf("environment variable %q", s.Env)
	case s.File != "":
		value, from = "", fmt.Sprintf("file %q", s.File)
		value, err = readPrivate(s.File)
	case len(s.Command) > 0:
		from = fmt.Sprintf("command %q", s.Command[0])
		value, err = s.run(ctx)
	default:
		return secret.String{}, nil
	}
	if err != nil {
		return secret.String{}, fmt.Errorf("cannot read the secret from %s: %w", from, err)
	}
	if value = strings.TrimSpace(value); value == "" {
		return secret.String{}, fmt.Errorf("cannot read the secret from %s: it is empty or not there", from)
	}
	return secret.New(value), nil
}

func (s Source) run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, commandTimeout, errors.New("it takes too long"))
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: s.Command[0], Args: s.Command[1:]})
	return string(res.Stdout), err
}

func readPrivate(path string) (string, error) {
	if err := checkPrivate(path); err != nil {
		return "", err
	}
	data, err := os.ReadFile(path)
	return string(data), err
}

// checkPrivate returns why a file cannot be trusted with a secret.
func checkPrivate(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return pathless(err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecret {
		return errors.New("it is not a small file")
	}
	if bits := info.Mode().Perm(); bits&0o077 != 0 {
		return fmt.Errorf("others can read it (mode %04o); run chmod 600 %s", bits, path)
	}
	return nil
}

// pathless drops the path from a file error, for messages that name it already.
func pathless(err error) error {
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return err
}
