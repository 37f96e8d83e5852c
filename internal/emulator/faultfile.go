package emulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"go.yaml.in/yaml/v4"
)

// ParseFaults reads a list of faults as YAML or JSON, strictly. See Fault.UnmarshalJSON.
func ParseFaults(data []byte) ([]Fault, error) {
	var list []any
	if err := yaml.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("cannot read the faults: %w", err)
	}
	var out []Fault
	for i, item := range list {
		raw, err := json.Marshal(item)
		if err != nil {
			return nil, fmt.Errorf("cannot read fault %d: %w", i+1, err)
		}
		var f Fault
		if err := json.Unmarshal(raw, &f); err != nil {
			return nil, fmt.Errorf("cannot read fault %d: %w", i+1, err)
		}
		out = append(out, f)
	}
	return out, nil
}

// UnmarshalJSON reads a fault strictly. Durations are nanoseconds or texts such as "30s"; the key incident
// names a fault to begin with, which the other keys change.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return fmt.Errorf("a fault has keys and values: %w", err)
	}
	out := Fault{}
	if raw, ok := fields["incident"]; ok {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return fmt.Errorf("incident is a name: %w", err)
		}
		var err error
		if out, err = Incident(name); err != nil {
			return err
		}
		delete(fields, "incident")
	}
	for _, key := range []string{"delay", "retry_after", "for"} {
		var text string
		if json.Unmarshal(fields[key], &text) != nil {
			continue // a number, or not there
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		fields[key] = fmt.Appendf(nil, "%d", d)
	}
	plain, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	type same Fault // without this method
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode((*same)(&out)); err != nil {
		return err
	}
	*f = out
	return nil
}
