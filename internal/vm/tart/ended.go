package tart

import (
	"errors"
	"fmt"
	"strings"

	"github.com/mirego/tasuki/internal/vm"
)

// ending is one way in which tart run ends, known by its words: its status is
// 0 for a guest that crashed.
type ending struct {
	words []string // one of them is in the last lines of its log
	// means is what it means and what to do; "" leaves tart's words alone.
	means string
	// alone: tart's words add nothing.
	alone bool
	is    error // may be nil
}

// endings are looked through in order. Source: reference material on tart 2.35,
// section 5, its FAQ and its issues.
var endings = []ending{
	{words: []string{"exceeds the system limit"}, is: vm.ErrLimit},
	{
		words: []string{"SecKeyCreateRandomKey", "Failed to generate keypair", "Interaction is not allowed with the Security Server"},
		means: "the login keychain is locked or nobody is logged in at the screen of this Mac: turn automatic login on, and keep the agent in that user's session (a LaunchAgent)",
	},
	{
		words: []string{"SoftnetError", "Softnet process terminated"},
		means: "softnet needs the SUID bit: sudo chown root $(readlink -f $(which softnet)) && sudo chmod u+s $(readlink -f $(which softnet))",
	},
	{words: []string{"network attachment"}, means: "the guest lost its network and was ended"},
	{words: []string{"control.sock", "control socket"}, means: "no way to its guest agent could be opened: its socket's path may have 104 bytes, so choose a shorter TART_HOME"},
	{words: []string{"outdated to run", "UnsupportedHostOS"}, means: "the image needs a newer macOS on this Mac"},
	{words: []string{"is already running"}, means: "somebody else has just started it"},
	{words: []string{"does not exist"}, means: "tart does not have it any more: it was deleted by somebody else"},
	{words: []string{"There is not enough", "No space left"}, means: "the disk of TART_HOME is full"},
	{words: []string{crashWords}},
	{words: []string{"guest has stopped the virtual machine"}, means: "the guest shut down", alone: true},
	{words: []string{"Stopping VM..."}, means: "somebody told it to stop", alone: true},
}

const crashWords = "guest has stopped the virtual machine due to error: "

// ended says why tart run ended, from its own words.
func ended(g *guest) error { return endedWith(lastWords(g.path(logFile))) }

func endedWith(words string) error {
	if words == "" {
		return errors.New("its tart run ended without a word")
	}
	for _, e := range endings {
		if !e.in(words) {
			continue
		}
		_, crash, crashed := strings.Cut(words, crashWords)
		switch {
		case e.is != nil:
			return fmt.Errorf("%s: %w", words, e.is)
		case e.alone:
			return errors.New(e.means)
		case crashed && e.means == "":
			return fmt.Errorf("the guest crashed: %s", crash)
		}
		return fmt.Errorf("%s; %s", words, e.means)
	}
	return fmt.Errorf("its tart run ended: %s", words)
}

func (e ending) in(words string) bool {
	for _, w := range e.words {
		if strings.Contains(words, w) {
			return true
		}
	}
	return false
}
