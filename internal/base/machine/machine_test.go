package machine

import "testing"

func TestMemory(t *testing.T) {
	if got := Memory(); got < 1<<28 || got > 1<<50 {
		t.Errorf("this machine has %d bytes of memory", got)
	}
}
