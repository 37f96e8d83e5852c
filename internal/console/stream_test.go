package console

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

// gone is a reader that went away.
type gone struct{ header http.Header }

func (g gone) Header() http.Header              { return g.header }
func (gone) WriteHeader(int)                    {}
func (gone) Write([]byte) (int, error)          { return 0, errors.New("broken pipe") }
func (gone) SetWriteDeadline(_ time.Time) error { return nil }

// Readers that go before they had anything do not use up the streams.
func TestStreamsThatBreakAtOnceAreNotCounted(t *testing.T) {
	c := &Console{}
	for range 3 * maxStreams {
		if _, err := c.openStream(gone{http.Header{}}); err == nil {
			t.Fatal("nothing was wrong")
		}
	}
	if n := c.streams.Load(); n != 0 {
		t.Errorf("%d streams are counted", n)
	}
}
