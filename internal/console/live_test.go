package console_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

// stream opens a stream; next returns the next message that begins a line with
// a text, and "" at its end.
func (w *world) stream(b *http.Client, path string) (next func(prefix string) string, end func()) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.root+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := b.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	return func(prefix string) string {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return ""
			}
			if strings.HasPrefix(line, prefix) {
				return strings.TrimSpace(line)
			}
		}
	}, func() { _ = res.Body.Close() }
}

func TestAStreamGoesOnWhereItWas(t *testing.T) {
	w := serve(t, newHost(t), nil)
	b := w.inside()
	next, end := w.stream(b, "/live?page=now&window=1h")
	first := strings.TrimPrefix(next("id: "), "id: ")
	if data := next("data: "); !strings.Contains(data, `"whole":true`) || !strings.Contains(data, "ios-aaaaaa") {
		t.Errorf("it begins with %s", data)
	}
	now := time.Now().UTC()
	w.feed.Emit(event.Event{Time: now, Kind: event.RunnerMoved, Pool: "ios", Runner: "tasuki-mini-abcdef-ios-bbbbbb", To: runner.Preparing})
	next("event: lanes")
	if data := next("data: "); !strings.Contains(data, "ios-bbbbbb") || strings.Contains(data, "ios-aaaaaa") {
		t.Errorf("it goes on with %s", data)
	}
	end()
	next, end = w.stream(b, "/live?page=now&window=1h&last="+first)
	defer end()
	if data := func() string { next("event: lanes"); return next("data: ") }(); !strings.Contains(data, "ios-bbbbbb") || strings.Contains(data, "ios-aaaaaa") || strings.Contains(data, `"whole":true`) {
		t.Errorf("after a break it goes on with %s", data)
	}
	other, endOther := w.stream(b, "/live?page=now&last=another-process.7")
	defer endOther()
	other("event: lanes")
	if data := other("data: "); !strings.Contains(data, `"whole":true`) {
		t.Errorf("after a restart it goes on with %s", data)
	}
}

func TestAStreamEndsWithItsSession(t *testing.T) {
	w := serve(t, newHost(t), nil)
	b := w.inside()
	word := w.csrf(b)
	next, end := w.stream(b, "/live?page=now")
	defer end()
	next("event: lanes")
	w.do(b, http.MethodPost, "/leave", form(word, ""), func(r *http.Request) { r.Header.Set("Origin", w.root) })
	if next("event: over") == "" || next("event: ") != "" {
		t.Error("the stream goes on without its session")
	}
}
