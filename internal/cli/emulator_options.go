package cli

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/emulator"
)

// appKeyBits is how large the key of an emulator's App is made.
const appKeyBits = 2048

// emulatorFlags are what an emulator is made of.
type emulatorFlags struct {
	listen, advertise, repository string
	tokenFile, faultsFile, app    string
	groups                        []string
	exit, public                  bool
	quota                         int
	minRunner                     string
	sets                          emulator.ScaleSetOptions
}

// more are the flags that change how GitHub behaves.
func (f *emulatorFlags) more(flags *pflag.FlagSet) {
	flags.StringVar(&f.app, "app", "", "`file` with the private key of a GitHub App, id 1, that is installed for the repository's owner; it is made if it is not there")
	flags.BoolVar(&f.public, "public", false, "make the repository a public one, which runner groups do not admit")
	flags.IntVar(&f.quota, "quota", 0, "REST calls in an hour; 0: 5000 as at GitHub, -1: no limit")
	flags.StringVar(&f.minRunner, "min-runner-version", "", "oldest `version` of the runner program that is given jobs")
	flags.BoolVar(&f.sets.Acquire, "scaleset-acquire", false, "offer jobs to scale sets to be acquired, as a GitHub Enterprise Server does")
	flags.BoolVar(&f.sets.ByName, "scaleset-by-name", false, "route jobs to the scale set that runs-on names alone, not by labels")
	flags.BoolVar(&f.sets.ZeroTrapdoor, "scaleset-trapdoor", false, "never give a set what is queued while it announces a capacity of 0")
	flags.DurationVar(&f.sets.AssignTimeout, "scaleset-lapse", 5*time.Minute, "how long an assigned job waits for a runner until the assignment lapses")
	flags.DurationVar(&f.sets.SessionTimeout, "scaleset-session", 50*time.Second, "how long the session of a listener that is gone keeps others out")
}

// options are the emulator's, but for its address and log.
func (f *emulatorFlags) options(ctx context.Context) (emulator.Options, error) {
	opt := emulator.Options{
		Repository: f.repository, Groups: f.groups, Public: f.public, ScaleSets: f.sets, MinRunnerVersion: f.minRunner,
		Quota: emulator.Quota{Core: f.quota},
	}
	if f.quota < 0 {
		opt.Quota.Registration = -1
	}
	var err error
	if opt.Faults, err = readFaults(f.faultsFile); err != nil {
		return opt, err
	}
	if opt.Token, err = (config.Source{File: f.tokenFile}).Read(ctx); err != nil {
		return opt, err
	}
	if f.app != "" {
		opt.App, err = readApp(f.app)
	}
	return opt, err
}

// readFaults reads what is to go wrong; nothing without a file.
func readFaults(file string) ([]emulator.Fault, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read the faults: %w", err)
	}
	faults, err := emulator.ParseFaults(file, data)
	return faults, withHint(err, "docs/emulator.md lists the keys and the incidents")
}

// readApp reads the App's key, and makes one where there is none.
func readApp(file string) (*emulator.App, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		data, err = makeAppKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the key of the App: %w", err)
	}
	app, err := emulator.NewApp(data)
	if err != nil {
		return nil, withHint(fmt.Errorf("cannot read the key of the App in %q: %w", file, err), "name a file that is not there, and one is made")
	}
	return app, nil
}

func makeAppKey(file string) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, appKeyBits)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return data, atomicfile.Write(file, data, 0o600)
}
