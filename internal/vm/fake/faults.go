package fake

import (
	"context"
	"fmt"
)

// Op is an operation of the driver, as faults name it.
type Op string

// The operations.
const (
	OpCreate   Op = "create"
	OpStart    Op = "start"
	OpPowerOff Op = "power-off"
	OpDestroy  Op = "destroy"
	OpList     Op = "list" // of no name
	OpAddress  Op = "address"
)

// Faults is the trouble that a driver makes. The zero value makes none.
type Faults struct {
	// NeverBoots: it runs and never has an address.
	NeverBoots Some
	// DiesBooting: its hypervisor ends when the boot delay is over.
	DiesBooting Some
	// Before is asked in turn before each operation does anything.
	Before []Fault
}

// Some chooses guests by name; nil chooses none.
type Some func(name string) bool

// All chooses every guest.
func All(string) bool { return true }

func (s Some) of(name string) bool { return s != nil && s(name) }

// Fault is asked before an operation, with the how many'th time it is for this
// guest, from 1, since the driver was opened. An error fails the operation; a
// fault may also take its time. It is called by many goroutines.
type Fault func(ctx context.Context, op Op, name string, try int) error

// Fail makes the first n tries of an operation on each guest fail with err.
func Fail(op Op, n int, err error) Fault {
	return func(_ context.Context, o Op, _ string, try int) error {
		if o == op && try <= n {
			return err
		}
		return nil
	}
}

// Hang makes the first n tries of an operation on each guest last until their
// context ends.
func Hang(op Op, n int) Fault {
	return func(ctx context.Context, o Op, _ string, try int) error {
		if o != op || try > n {
			return nil
		}
		<-ctx.Done()
		return fmt.Errorf("it hung: %w", context.Cause(ctx))
	}
}

type attempt struct {
	op   Op
	name string
}

// before asks for faults, and for the end of ctx.
func (d *Driver) before(ctx context.Context, op Op, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(d.opts.Faults.Before) == 0 {
		return nil
	}
	d.mu.Lock()
	d.tries[attempt{op, name}]++
	try := d.tries[attempt{op, name}]
	d.mu.Unlock()
	for _, fault := range d.opts.Faults.Before {
		if err := fault(ctx, op, name, try); err != nil {
			return err
		}
	}
	return nil
}
