package workflow

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// inputDef is one input of on.workflow_dispatch.
type inputDef struct {
	name     string
	kind     string // string, number, boolean, choice, environment; empty for string
	value    string // its default
	required bool
	options  []string
}

func (c *compiler) dispatchInputs() []inputDef {
	var defs []inputDef
	for key, n := range entries(get(get(get(c.root, "on"), "workflow_dispatch"), "inputs")) {
		d := inputDef{name: key.Value, options: texts(get(n, "options"))}
		if kind := get(n, "type"); kind != nil {
			d.kind = kind.Value
		}
		if value := get(n, "default"); value != nil {
			d.value = expr.String(scalar(value))
		}
		if required := get(n, "required"); required != nil {
			d.required = scalar(required) == true
		}
		if d.kind == "environment" {
			c.refuse(key, "on.workflow_dispatch.inputs."+d.name, "not supported: there are no deployments here")
		}
		defs = append(defs, d)
	}
	return defs
}

// dispatch makes the inputs context, and what the event's payload holds of it, where every value is a text.
func (w *Workflow) dispatch(given map[string]string) (context, payload *expr.Object, err error) {
	context, payload = &expr.Object{}, &expr.Object{}
	var errs []error
	rest := &expr.Object{}
	for name, v := range given {
		rest.Set(name, v)
	}
	for _, d := range w.inputs {
		text := d.value
		v, isGiven := rest.Get(d.name)
		if isGiven {
			text = v.(string)
		}
		typed, err := d.typed(text)
		if err == nil && d.required && text == "" {
			err = errors.New("it is required and was not given")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot take input %q: %w", d.name, err))
			continue
		}
		context.Set(d.name, typed)
		payload.Set(d.name, text)
	}
	for _, name := range rest.Keys() {
		if !slices.ContainsFunc(w.inputs, func(d inputDef) bool { return strings.EqualFold(d.name, name) }) {
			errs = append(errs, fmt.Errorf("cannot take input %q: the workflow has none of that name under on.workflow_dispatch.inputs", name))
		}
	}
	return context, payload, errors.Join(errs...)
}

func (d inputDef) typed(text string) (any, error) {
	switch d.kind {
	case "boolean":
		if text == "" {
			return false, nil
		}
		v, err := strconv.ParseBool(text)
		if err != nil {
			return nil, fmt.Errorf("it is neither true nor false: %q", text)
		}
		return v, nil
	case "number":
		v := expr.Number(text)
		if math.IsNaN(v) {
			return nil, fmt.Errorf("it is no number: %q", text)
		}
		return v, nil
	case "choice":
		if text == "" && !d.required && len(d.options) > 0 {
			return d.options[0], nil
		}
		if !slices.Contains(d.options, text) {
			return nil, fmt.Errorf("%q is none of %s", text, strings.Join(d.options, ", "))
		}
	}
	return text, nil
}
