package expr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// maxResult bounds the texts that one function may make, as GitHub bounds an evaluation's memory.
const maxResult = 10 << 20

// maxNesting bounds how deep a JSON text may nest.
const maxNesting = 100

var errTooLong = fmt.Errorf("the result is longer than %d bytes", maxResult)

// ToJSON writes a value as toJSON does: indented by two spaces, keys in their order.
func ToJSON(v any) (string, error) {
	var b strings.Builder
	if err := writeJSON(&b, v, "\n"); err != nil {
		return "", err
	}
	return b.String(), nil
}

func writeJSON(b *strings.Builder, v any, newline string) error {
	if b.Len() > maxResult {
		return errTooLong
	}
	inner := newline + "  "
	switch v := v.(type) {
	case *Object:
		if v.Len() == 0 {
			b.WriteString("{}")
			return nil
		}
		for i, k := range v.keys {
			b.WriteString(opening(i, "{") + inner)
			writeString(b, k)
			b.WriteString(": ")
			value, _ := v.Get(k)
			if err := writeJSON(b, value, inner); err != nil {
				return err
			}
		}
		b.WriteString(newline + "}")
	case []any:
		if len(v) == 0 {
			b.WriteString("[]")
			return nil
		}
		for i, item := range v {
			b.WriteString(opening(i, "[") + inner)
			if err := writeJSON(b, item, inner); err != nil {
				return err
			}
		}
		b.WriteString(newline + "]")
	case string:
		writeString(b, v)
	case nil:
		b.WriteString("null")
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			writeString(b, formatNumber(v))
			return nil
		}
		b.WriteString(formatNumber(v))
	default:
		b.WriteString(String(v))
	}
	return nil
}

func opening(i int, bracket string) string {
	if i == 0 {
		return bracket
	}
	return ","
}

func writeString(b *strings.Builder, s string) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	b.WriteString(strings.TrimSuffix(buf.String(), "\n"))
}

// FromJSON reads a value as fromJSON does, keeping the order of keys.
func FromJSON(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	v, err := readJSON(d, 0)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the text ends too early")
		}
		return nil, fmt.Errorf("cannot read JSON %s: %w", abbreviate(s), err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot read JSON %s: something follows the first value", abbreviate(s))
	}
	return v, nil
}

func readJSON(d *json.Decoder, depth int) (any, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("it nests deeper than %d levels", maxNesting)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := &Object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			o.Set(key.(string), v)
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

func abbreviate(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fmt.Sprintf("%q", s)
}
