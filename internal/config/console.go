package config

import (
	"fmt"
	"net"
	"strings"
)

// Console is the web console of the agent.
type Console struct {
	Listen string   `yaml:"listen,omitempty" doc:"Where the console is served, as 127.0.0.1:PORT: a loopback address, so that nobody else's machine reaches it. Empty: a free port, opened with the first tasuki console. off: no console." example:"127.0.0.1:9465"`
	Hosts  []string `yaml:"hosts,omitempty" doc:"Names by which a reverse proxy with TLS serves the console, beside the loopback addresses." example:"tasuki.example.com"`
}

// ConsoleOff is the Listen of a host without a console.
const ConsoleOff = "off"

// console checks the keys of this file.
func (k *checker) console() {
	c := &k.c.Console
	if c.Listen != "" && c.Listen != ConsoleOff {
		if err := checkHostPort(c.Listen); err != nil {
			k.bad(at("console.listen"), err.Error(), "write it as 127.0.0.1:9465, or off")
		} else if host, _, _ := net.SplitHostPort(c.Listen); !loopback(host) {
			k.bad(at("console.listen"), fmt.Sprintf("the console would be served to the network without TLS, on %s", clip(host)),
				"listen on 127.0.0.1; docs/monitoring.md shows ssh -L and a reverse proxy")
		}
	}
	for i, h := range c.Hosts {
		if h == "" || strings.ContainsAny(h, " /\\@*?#'\"") {
			k.bad([]string{fmt.Sprintf("console.hosts[%d]", i), "console.hosts"}, fmt.Sprintf("%q is not a host or host:port", clip(h)), "write the name as browsers show it, such as tasuki.example.com")
		}
	}
	if c.Listen == ConsoleOff && len(c.Hosts) > 0 {
		k.bad(at("console.hosts"), "there are names for a console that is off", "remove them, or console.listen: off")
	}
}
