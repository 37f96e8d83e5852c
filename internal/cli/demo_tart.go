package cli

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/guest/tartexec"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// The words of the stand-in for tart, package tarttest, which the demo is not
// wired to: it is a program on PATH.
const (
	standInWord    = "stand-in"
	standInBackend = "TART_STAND_IN_BACKEND"
	standInForward = "TART_STAND_IN_FORWARD"
)

// onTart says whether guests run through the tart driver. With that, the demo
// shows our driver at work against the stand-in, which runs the same Debian
// guests under QEMU; a Mac's tart could not run them.
func (d *demo) onTart() bool { return d.flags.driver == "tart" }

func (d *demo) tartHome() string { return d.path("tart-home") }

// openTart wires the tart driver on a folder of the demo's.
func (d *demo) openTart(w *wiring, h *demoHost) error {
	for name, value := range map[string]string{"TART_HOME": d.tartHome(), standInBackend: "qemu"} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	p := config.Pool{Settings: config.Settings{Driver: "tart", Tart: config.Tart{OS: image.OSLinux, Channel: tartexec.Exec}}}
	var err error
	if h.driver, h.dialer, err = w.driverOf(context.Background(), p); err != nil {
		return withHint(err, "go build -o DIR/tart ./internal/vm/tart/tarttest/cmd/tart, and DIR first on PATH: that is the stand-in")
	}
	if how := h.driver.Capabilities().AccelReason; !strings.Contains(how, standInWord) {
		return withHint(fmt.Errorf("cannot run the demo's Linux guests under %s", how), "the demo's driver tart is for Tasuki's stand-in of tart; on a Mac, configure a pool: docs/host.md")
	}
	h.tart, err = w.tartImagesFor(image.OSLinux)
	return err
}

// network is where the demo's guests can go: to its GitHub.
func (d *demo) network() vm.Network {
	host := d.address
	if d.onTart() { // tart maps no addresses; the stand-in's network does
		host = guestGitHub + ":80"
	}
	return vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{{Guest: guestGitHub + ":80", Host: host}}}
}

// openNetwork tells the stand-in where its guests' GitHub is.
func (d *demo) openNetwork() error {
	if !d.onTart() {
		return nil
	}
	return os.Setenv(standInForward, guestGitHub+":80="+d.address)
}
