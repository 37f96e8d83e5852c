package tart

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// slotState is what is known of the hypervisor's slots. Guarded by Driver.mu.
type slotState struct {
	others    int // machines of others that run
	leaked    int
	retry     time.Time     // when a leaked slot is tried again
	patience  time.Duration // between the last two tries
	announced bool
}

// Slots implements vm.SlotCounter.
func (d *Driver) Slots() vm.Slots {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := vm.Slots{Others: d.slots.others, Leaked: d.slots.leaked}
	if s.Leaked > 0 {
		s.Retry, s.Reason = d.slots.retry, leakedReason(s.Leaked)
	}
	return s
}

func leakedReason(n int) string {
	return fmt.Sprintf("macOS counts %d virtual machine(s) that are no more, and refuses new ones: reboot this Mac when it is idle (tasuki drain first)", n)
}

// census counts macOS machines that run: all that tart shows, those among them
// that are not ours, and those of other programs.
func (d *Driver) census(ctx context.Context) (all, others int, err error) {
	machines, err := d.runningMachines()
	if err != nil {
		return 0, 0, err
	}
	for _, m := range machines {
		if !m.darwin {
			continue
		}
		all++
		if _, err := d.guest(m.name); errors.Is(err, vm.ErrNotFound) {
			others++
		}
	}
	total, err := d.opt.Machines(ctx)
	if err != nil {
		d.log.Debug("cannot count the machines of other programs", "err", err)
		return all, others, nil
	}
	if elsewhere := total - len(machines); elsewhere > 0 {
		all, others = all+elsewhere, others+elsewhere
	}
	return all, others, nil
}

// countSlots remembers who else holds slots.
func (d *Driver) countSlots(ctx context.Context) {
	if d.Capabilities().MaxGuests == 0 {
		return
	}
	_, others, err := d.census(ctx)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slots.others = others
}

// slotFree refuses a start that cannot succeed, so that nothing is tried in a
// hot loop.
func (d *Driver) slotFree(ctx context.Context) error {
	most := d.Capabilities().MaxGuests
	if most == 0 {
		return nil
	}
	all, _, err := d.census(ctx)
	if err != nil {
		return err
	}
	s := d.Slots()
	switch {
	case all >= most:
		return fmt.Errorf("%d of %d macOS guests run on this Mac: %w", all, most, vm.ErrLimit)
	case all+s.Taken()-s.Others >= most:
		return fmt.Errorf("%d of %d macOS guests run on this Mac; next try at %s: %w", all, most, s.Retry.UTC().Format("15:04:05 UTC"), vm.ErrLeaked)
	}
	return nil
}

// slotTaken learns from a start that succeeded.
func (d *Driver) slotTaken(ctx context.Context) {
	all, _, err := d.census(ctx)
	if err != nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.slots.leaked = max(0, min(d.slots.leaked, d.Capabilities().MaxGuests-all)); d.slots.leaked == 0 {
		d.slots = slotState{others: d.slots.others}
	}
}

// slotRefused names what a refusal means that lasted: slots in use elsewhere,
// or slots that nobody uses (incident leaked-vm-slot). They are tried again
// later, each time later, and not before.
func (d *Driver) slotRefused(ctx context.Context, refusal error) error {
	all, _, err := d.census(ctx)
	if err != nil {
		return errors.Join(refusal, err)
	}
	hidden := d.Capabilities().MaxGuests - all
	if hidden <= 0 {
		return refusal
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slots.patience = min(max(2*d.slots.patience, d.times.leak), 8*d.times.leak)
	d.slots.leaked, d.slots.retry = hidden, time.Now().Add(d.slots.patience)
	d.log.Warn("slots of the hypervisor have leaked", "leaked", hidden, "retry", d.slots.retry)
	return fmt.Errorf("%w: %w", refusal, vm.ErrLeaked)
}

// frameworkMachines counts the processes of Apple's framework: each virtual
// machine, of whatever program, has one of its own.
func frameworkMachines(ctx context.Context) (int, error) {
	if runtime.GOOS != "darwin" {
		return 0, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("ps did not end"))
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: "/bin/ps", Args: []string{"-axo", "comm="}})
	if err != nil {
		return 0, fmt.Errorf("cannot list processes: %w", err)
	}
	return strings.Count(string(res.Stdout), "/com.apple.Virtualization.VirtualMachine\n"), nil
}
