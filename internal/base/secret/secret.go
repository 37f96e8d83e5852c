// Package secret holds values that must never be read by a person by accident.
//
// A String prints as "[redacted]" wherever Go formats, logs or marshals it;
// only Reveal gives the value, so a search for Reveal finds every place where
// a secret leaves us.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// String is a text that redacts itself in fmt, slog, JSON and YAML output.
// The zero value is the empty secret.
type String struct {
	value *string // a pointer: fmt prints unexported fields without asking us
}

// New wraps a secret text.
func New(value string) String { return String{&value} }

// Reveal returns the secret itself.
func (s String) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty says whether there is no secret at all.
func (s String) Empty() bool { return s.Reveal() == "" }

// Format redacts for every verb of fmt.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// String implements fmt.Stringer and redacts.
func (s String) String() string {
	if s.Empty() {
		return ""
	}
	return redacted
}

// LogValue redacts for log/slog.
func (s String) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText redacts for encoders; a secret is never written by one.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes a secret in.
func (s *String) UnmarshalText(b []byte) error {
	*s = New(string(b))
	return nil
}
