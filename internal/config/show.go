package config

import (
	"fmt"
	"maps"
	"regexp"

	"github.com/goccy/go-yaml"
)

// secretName matches names of variables whose values are probably secret.
var secretName = regexp.MustCompile(`(?i)(secret|token|passw|credential|private|api_?key)`)

// Show writes the configuration as YAML with every default filled in and each
// value that may be secret redacted. Every pool says all, so that there are no
// defaults left.
func (c *Config) Show() ([]byte, error) {
	shown := *c
	shown.Defaults = Settings{}
	shown.Pools = nil
	for _, p := range c.Pools {
		p.Env = maps.Clone(p.Env)
		for name := range p.Env {
			if secretName.MatchString(name) {
				p.Env[name] = "[redacted]"
			}
		}
		shown.Pools = append(shown.Pools, p)
	}
	data, err := yaml.MarshalWithOptions(shown, yaml.IndentSequence(true), yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("cannot write the configuration: %w", err)
	}
	return data, nil
}
