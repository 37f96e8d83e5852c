package config

import (
	"fmt"
	"time"
)

// Metrics is where a Prometheus can ask for metrics, beside the Unix socket.
type Metrics struct {
	Listen string `yaml:"listen,omitempty" doc:"Where metrics are served over HTTP, as ADDRESS:PORT. Empty: on the agent's Unix socket alone." example:"0.0.0.0:9464"`
	Token  Source `yaml:"token,omitempty" doc:"What a Prometheus must send as a bearer token; needed with listen, also on a loopback address, which guests may reach. It never stands in this file."`
}

// RunnerReleases is how the host keeps releases of the runner program.
type RunnerReleases struct {
	Refresh Duration `yaml:"refresh" doc:"How often GitHub is asked for a newer release of the runner program, which is then kept on this host for guests whose image carries an older one."`
}

// History is what the host keeps of runners that are gone.
type History struct {
	Age  Duration `yaml:"age" doc:"How long runs are kept."`
	Size Size     `yaml:"size" doc:"How large the history may grow; the oldest runs go first."`
}

// Logs is what the host keeps of what runners that are gone wrote.
type Logs struct {
	Runs int      `yaml:"runs" doc:"Of how many runners, the latest."`
	Age  Duration `yaml:"age" doc:"How long."`
}

// minToken is the least length of a token for metrics: shorter ones can be
// guessed.
const minToken = 16

// monitoring checks the keys of this file.
func (k *checker) monitoring() {
	m := &k.c.Metrics
	k.source("metrics.token", &m.Token)
	if m.Listen != "" {
		if err := checkHostPort(m.Listen); err != nil {
			k.bad(at("metrics.listen"), err.Error(), "write it as 0.0.0.0:9464, or 127.0.0.1:9464")
		}
		if m.Token.IsZero() && !k.hasProblemAt("metrics.token") {
			k.bad(at("metrics.listen"), "metrics would be served to whoever asks", "name a token under metrics.token: {file: PATH}; openssl rand -hex 32 makes one")
		}
	} else if !m.Token.IsZero() {
		k.bad(at("metrics.token"), "there is a token for metrics and nothing that serves them", "add metrics.listen, such as 0.0.0.0:9464")
	}
	if r := k.c.Releases.Refresh; r < Duration(5*time.Minute) || r > Duration(7*24*time.Hour) {
		k.bad(at("runner_releases.refresh"), fmt.Sprintf("refresh of %s", r), "choose one between 5m and 7d: GitHub counts each question, and gives no jobs to old releases")
	}
	if a := k.c.History.Age; a < Duration(time.Hour) {
		k.bad(at("history.age"), fmt.Sprintf("age of %s", a), "choose 1h or more")
	}
	if s := k.c.History.Size; s < 1<<20 {
		k.bad(at("history.size"), fmt.Sprintf("size of %s", s), "choose 1MiB or more")
	}
	if n := k.c.Logs.Runs; n < 1 || n > 100_000 {
		k.bad(at("logs.runs"), fmt.Sprintf("logs of %d runners", n), "choose a number between 1 and 100000")
	}
	if a := k.c.Logs.Age; a < Duration(time.Hour) {
		k.bad(at("logs.age"), fmt.Sprintf("age of %s", a), "choose 1h or more")
	}
}
