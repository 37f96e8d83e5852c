package scaleset_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
)

func TestASetServesJobs(t *testing.T) {
	for name, acquire := range map[string]bool{"assigned directly": false, "available, then acquired": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{
					Acquire: acquire, AdminTokenLife: 10 * time.Minute, QueueTokenLife: 2 * time.Minute,
				}})
				p := w.pool(w.host())
				p.hold = 7 * time.Minute
				p.start()
				w.listening()
				w.finish(w.submit(12))
				time.Sleep(time.Minute)
				p.end()
				p.check(t, 12)
				if p.made != 12 || p.most > 2 {
					t.Errorf("%d runners were made, at most %d at once; want 12 and 2", p.made, p.most)
				}
				rest := w.theSet()
				if len(w.State().Runners) != 0 || rest.Owner != "" || rest.Unread != 0 || rest.Statistics != (emulator.SetStatistics{}) {
					t.Errorf("left over: %+v, runners %+v", rest, w.State().Runners)
				}
			})
		})
	}
}
