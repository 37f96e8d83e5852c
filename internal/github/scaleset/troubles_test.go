package scaleset_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
)

// instead answers requests in the emulator's place where it returns a reply.
type instead struct {
	next   http.RoundTripper
	answer func(*http.Request) *http.Response
}

func (i instead) RoundTrip(r *http.Request) (*http.Response, error) {
	if res := i.answer(r); res != nil {
		return res, nil
	}
	return i.next.RoundTrip(r)
}

func (w *world) instead(answer func(*http.Request) *http.Response) {
	w.counted.next = instead{w.counted.next, answer}
}

func refusal(r *http.Request, code int, kind string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"typeName":"` + kind + `","message":"no"}`))}
}

func polls(r *http.Request) bool { return r.Header.Get("X-ScaleSetMaxCapacity") != "" }

func makes(r *http.Request, last string) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, last)
}

// A pool could start nothing for so long that GitHub stopped assigning its job:
// the next runner of the set takes it all the same.
func TestAJobThatWasAssignedInVainIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.pool(w.host())
		p.lame = true
		p.start()
		w.listening()
		run := w.submit(1)
		time.Sleep(40 * time.Minute)
		p.mu.Lock()
		p.lame = false
		p.mu.Unlock()
		w.finish(run)
		time.Sleep(20 * time.Minute)
		if n := p.set.Want().Runners(); n != 0 {
			t.Errorf("an idle runner was there, and %d more are wanted", n)
		}
		p.end()
	})
}

func TestAMessageThatIsNotThereIsAcknowledged(t *testing.T) {
	for _, code := range []int{http.StatusNotFound, http.StatusBadRequest} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, emulator.Options{})
			w.instead(func(r *http.Request) *http.Response {
				if r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/queue/") {
					return refusal(r, code, "MessageNotFoundException")
				}
				return nil
			})
			p := w.listen(w.host())
			w.listening()
			w.finish(w.submit(2))
			p.end()
		})
	}
}

func TestAJobMessageThatCannotBeReadHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		next := w.counted.next
		spoilt := false
		w.instead(func(r *http.Request) *http.Response {
			if !polls(r) || spoilt {
				return nil
			}
			res, err := next.RoundTrip(r)
			if err != nil || res.StatusCode != http.StatusOK {
				return res
			}
			b, _ := io.ReadAll(res.Body)
			bad := bytes.Replace(b, []byte(`\"runnerRequestId\":0`), []byte(`\"runnerRequestId\":\"0\"`), 1)
			spoilt = !bytes.Equal(b, bad)
			res.Body = io.NopCloser(bytes.NewReader(bad))
			return res
		})
		p := w.listen(w.host())
		w.listening()
		w.finish(w.submit(2))
		if !spoilt {
			t.Error("nothing was spoilt")
		}
		p.end()
	})
}

func TestASessionThatExpiredIsOpenedAnew(t *testing.T) {
	for _, kind := range []string{"RunnerScaleSetSessionExpiredException", "SomeOtherException"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, emulator.Options{})
			dead := false
			w.instead(func(r *http.Request) *http.Response {
				dead = dead && !makes(r, "/sessions")
				if polls(r) && dead {
					return refusal(r, http.StatusBadRequest, kind)
				}
				return nil
			})
			p := w.listen(w.host())
			w.listening()
			dead = true
			w.finish(w.submit(1))
			p.end()
		})
	}
}

func TestLabelsThatComeBackWhileTheirSetIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.listen(h)
		w.listening()
		back := false
		w.instead(func(r *http.Request) *http.Response {
			if r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/runnerscalesets/") && !strings.Contains(r.URL.Path, "/sessions") && !back {
				back = true
				p.set.Configure(h.settings)
			}
			return nil
		})
		other := h.settings
		other.Labels = []string{"other"}
		p.set.Configure(other)
		w.until("the first set is being deleted", func() bool { return back })
		w.finish(w.submit(1))
		p.end()
	})
}

func TestTheOldSetServesUntilTheNewOneIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.listen(h)
		w.listening()
		w.instead(func(r *http.Request) *http.Response {
			if makes(r, "/runnerscalesets") {
				return refusal(r, http.StatusForbidden, "Denied")
			}
			return nil
		})
		next := h.settings
		next.Labels = append([]string{"one-more"}, next.Labels...)
		p.set.Configure(next)
		time.Sleep(time.Hour)
		w.finish(w.submit(1))
		p.end()
	})
}

// A second host is refused a set that the first one has just made, and then
// takes a name of its own: the first one's set is neither heard nor deleted.
func TestTheSetOfAnotherHostIsLeftAlone(t *testing.T) {
	for _, race := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, emulator.Options{})
			first, second := w.host(), w.host()
			second.installation = "bbbbbb"
			var a *pool
			deleted, zero := 0, 0
			w.instead(func(r *http.Request) *http.Response {
				if race && a == nil && makes(r, "/runnerscalesets") {
					a = w.listen(first)
					w.until("the first host has made it", func() bool { return len(w.State().ScaleSets) > 0 })
					return refusal(r, http.StatusBadRequest, "RunnerScaleSetExistsException")
				}
				if r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/runnerscalesets/") && !strings.Contains(r.URL.Path, "/sessions") {
					deleted++
				}
				if polls(r) && r.Header.Get("X-ScaleSetMaxCapacity") == "0" {
					zero++
				}
				return nil
			})
			if !race {
				a = w.listen(first)
				w.listening()
			}
			b := w.listen(second)
			time.Sleep(30 * time.Minute)
			own := second.settings
			own.Name, own.Labels = "pool-b", []string{"b"}
			b.set.Configure(own)
			time.Sleep(10 * time.Minute)
			a.end() // it restarts, and is away for a while
			time.Sleep(15 * time.Minute)
			again := w.listen(first)
			w.finish(w.submit(1))
			if deleted != 0 || zero != 0 {
				t.Errorf("race %v: %d sets were deleted, and a capacity of 0 was announced %d times", race, deleted, zero)
			}
			again.end()
			b.end()
		})
	}
}

func TestADamagedBookIsPutAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		if err := os.WriteFile(h.file, []byte(`{"sets":[{"id":1,"jo`), 0o600); err != nil {
			t.Fatal(err)
		}
		p := w.listen(h)
		w.listening()
		w.finish(w.submit(1))
		p.end()
	})
}
