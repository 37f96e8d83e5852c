package emulator_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/emulator"
)

func TestFaultsAreRead(t *testing.T) {
	evicted := emulator.SessionEvicted(1)
	evicted.Skip = 3
	three := 3
	want := []emulator.Fault{
		evicted, emulator.StaleStatistics(34, 10*time.Minute),
		{Route: "POST generate-jitconfig", Times: 2, Status: 502, RetryAfter: 1500 * time.Millisecond},
		{Message: "JobStarted", Delay: time.Hour, Nameless: true},
		{Lapse: time.Second}, {Trapdoor: true, For: time.Minute}, {Assigned: &three},
	}
	for _, text := range []string{`
- incident: session-evicted
  skip: 3
- for: 10m
  incident: stale-statistics
- {route: POST generate-jitconfig, times: 2, status: 502, retry_after: 1500000000}
- {message: JobStarted, delay: 1h, nameless: true}
- lapse: 1s
- {trapdoor: true, for: 1m}
- assigned: 3
`, `[{"incident": "session-evicted", "skip": 3}, {"incident": "stale-statistics", "for": "10m"},
 {"route": "POST generate-jitconfig", "times": 2, "status": 502, "retry_after": "1.5s"},
 {"message": "JobStarted", "delay": "60m", "nameless": true},
 {"lapse": "1s"}, {"trapdoor": true, "for": "1m"}, {"assigned": 3}]`} {
		got, err := emulator.ParseFaults("f.yml", []byte(text))
		if diff := gocmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
	}
	for _, text := range []string{"", "[]", "# nothing\n", "null"} {
		if got, err := emulator.ParseFaults("f.yml", []byte(text)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestFaultsSayWhereTheyAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"- {rout: x}":                           `f.yml:1:4: unknown key "rout" in a fault; did you mean "route"?`,
		"- delay: 1s\n- loseReply: true":        `f.yml:2:3: unknown key "loseReply" in a fault; did you mean "lose_reply"?`,
		"- {banana: x}":                         `f.yml:1:4: unknown key "banana" in a fault; known here: assigned, body,`,
		"- incident: version-depricated":        `f.yml:1:13: there is no incident "version-depricated"; did you mean "version-deprecated"?`,
		"- incident: quake":                     `f.yml:1:13: there is no incident "quake"; there are: admin-token-expired, `,
		"- {incident: [a list]}":                "f.yml:1:14: an incident is a name",
		"- delay: 1s\n- {delay: soon}":          `f.yml:2:11: "delay": "soon" is no duration; write 30s, 10m or 1h30m`,
		"- {delay: -1s}":                        `f.yml:1:11: "delay": "-1s" is no duration`,
		"- {status: teapot}":                    `f.yml:1:12: "status": "teapot" is no whole number from 100 to 599`,
		"- {status: 1000}":                      `f.yml:1:12: "status": "1000" is no whole number from 100 to 599`,
		"- {status: 500, times: -1}":            `f.yml:1:24: "times": "-1" is no whole number`,
		"- {lose_reply: yes please}":            `f.yml:1:16: "lose_reply": "yes please" is neither true nor false`,
		"- {message: JobEnded, lose: true}":     `f.yml:1:13: "message": "JobEnded" is no kind of message; there are: JobAssigned, `,
		"- {message: JobStarted, status: 500}":  `f.yml:1:33: "status" is not for messages; for a message there are lose, delay, twice and nameless`,
		"- message: JobStarted":                 "f.yml:1:3: nothing happens to the message; add lose, ",
		"- route: GET runners":                  "f.yml:1:3: nothing happens to the requests; add delay, ",
		"- lose: true":                          "f.yml:1:3: it is not said which message; add message: ",
		"- {lapse: 1s, route: x}":               `f.yml:1:22: "route" is not for assigned, trapdoor and lapse; write two faults`,
		"- {delay: 1s, body: hello}":            "f.yml:1:21: without a status nothing is answered; add status: 503",
		"- {delay: 1s, delay: 2s}":              `f.yml:1:`,
		"route: x":                              "f.yml:1:1: the faults are no list; begin each with a hyphen",
		"- just a text":                         "f.yml:1:3: a fault has keys and values",
		"- {route: x":                           "f.yml:1:1: cannot be read as YAML",
		"- {rout: x}\n- {delay: soon}\n- 5\n":   "f.yml:3:3: a fault has keys and values",
		strings.Repeat("- {delay: 1s}\n", 1001): "f.yml:1:1: there are 1001 faults",
	} {
		_, err := emulator.ParseFaults("f.yml", []byte(text))
		list, ok := errors.AsType[problem.List](err)
		if !ok || !strings.Contains(list.Error(), want) || strings.Contains(text, "incident:") && len(list) > 1 {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParseFaults(f *testing.F) {
	f.Add([]byte("- incident: session-evicted\n  skip: 3\n- &a {delay: 1s}\n- *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := emulator.ParseFaults("f.yml", data)
		if err == nil {
			return
		}
		if list, ok := errors.AsType[problem.List](err); !ok || len(list) == 0 || len(got) > 0 {
			t.Errorf("%d faults and %v", len(got), err)
		}
	})
}
