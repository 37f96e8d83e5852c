package console_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

// BenchmarkEventReachesAPage measures from an event of the agent to the message
// that draws it on an open page, while other pages are open as well and events
// come at odd times, as many as 500 runs an hour make and more.
func BenchmarkEventReachesAPage(b *testing.B) {
	w := serve(b, newHost(b), nil)
	const pages = 4
	lines := make(chan string, 1024)
	for i := range pages {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, w.root+"/live?page=now", nil)
		if err != nil {
			b.Fatal(err)
		}
		res, err := w.inside().Do(req)
		if err != nil {
			b.Fatal(err)
		}
		defer res.Body.Close()
		go func() { // ends with its body
			for s := bufio.NewScanner(res.Body); s.Scan(); {
				if i == 0 && strings.HasPrefix(s.Text(), `data: {"lanes"`) {
					lines <- s.Text()
				}
			}
		}()
	}
	<-lines // the whole past
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		time.Sleep(time.Duration(n*37%300) * time.Millisecond)
		name := fmt.Sprintf("tasuki-mini-abcdef-ios-%06d", n)
		start := time.Now()
		w.feed.Emit(event.Event{Time: start, Kind: event.RunnerMoved, Pool: "ios", Runner: name, To: runner.Preparing})
		for !strings.Contains(<-lines, name) {
		}
		took = append(took, time.Since(start))
		w.feed.Emit(event.Event{Time: time.Now(), Kind: event.RunnerMoved, Pool: "ios", Runner: name, From: runner.Preparing, To: runner.Gone})
	}
	slices.Sort(took)
	at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}
