package emulator_test

import (
	"testing"
	"testing/synctest"

	"github.com/mirego/tasuki/internal/emulator"
)

// A manager on the host reaches the service where it asked for it, although
// guests are told another address.
func TestTheServiceIsWhereItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{AdvertiseURL: "http://10.0.2.100"})
		c := official(t, w, transport, "/octo")
		set := makeSet(t, c, "pool", "self-hosted", "linux")
		s := openSession(t, c, set.ID, "host-1")
		if got := s.Session().MessageQueueURL; got[:len("http://github.test/")] != "http://github.test/" {
			t.Errorf("the queue is at %s", got)
		}
	})
}
