package tarttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"
)

// lease gives the machine an address, by its MAC, and writes it down as
// macOS's DHCP server does. Loopback addresses: nothing here leaves the host.
func (t *tart) lease(m machine) (string, error) {
	if t.faults.NoIP {
		return "", nil
	}
	data, err := os.ReadFile(m.path(macFile)) // config.json is locked: see power
	if err != nil {
		return "", err
	}
	mac := string(data)
	unlock, err := t.lockHome()
	if err != nil {
		return "", err
	}
	defer unlock()
	leases, err := t.leases()
	if err != nil {
		return "", err
	}
	if ip, ok := leases[mac]; ok {
		return ip, nil
	}
	n := len(leases) + 2
	leases[mac] = fmt.Sprintf("127.64.%d.%d", n/250, n%250+1)
	if data, err = json.Marshal(leases); err != nil {
		return "", err
	}
	return leases[mac], os.WriteFile(t.leasesFile(), data, 0o600)
}

func (t *tart) leases() (map[string]string, error) {
	leases := map[string]string{}
	data, err := os.ReadFile(t.leasesFile())
	if errors.Is(err, fs.ErrNotExist) {
		return leases, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &leases)
	}
	return leases, err
}

// ip prints a machine's address. It does not ask whether the machine runs, and
// sleeps a second before it says that there is none.
func (t *tart) ip(args []string) error {
	a, err := parse(args, 1, "--wait=", "--resolver=")
	if err == nil {
		err = a.needs(1, "name")
	}
	if err != nil {
		return err
	}
	m := t.machine(a.words[0])
	if !m.initialized() {
		return noVM(m.name)
	}
	wait, err := strconv.ParseUint(a.last("--wait", "0"), 10, 16)
	if err != nil {
		return usage("The value is invalid for '--wait <wait>'")
	}
	resolver := a.last("--resolver", "dhcp")
	if !slices.Contains([]string{"dhcp", "arp", "agent"}, resolver) {
		return usage("The value '%s' is invalid for '--resolver <resolver>'", resolver)
	}
	pace := time.Second
	if t.faults.IPPoll > 0 {
		pace = time.Duration(t.faults.IPPoll)
	}
	for n := uint64(0); ; n++ {
		ip, err := t.resolve(m, resolver)
		if err != nil {
			return err
		}
		if ip != "" {
			fmt.Fprintln(t.stdout, ip)
			return nil
		}
		time.Sleep(pace)
		if n >= wait {
			return fail(1, "no IP address found, is your VM running?")
		}
	}
}

// resolve returns an address or "".
func (t *tart) resolve(m machine, resolver string) (string, error) {
	if resolver == "agent" {
		ip, _ := t.askIP(m.name)
		return ip, nil
	}
	if t.spend("torn-leases", t.faults.TornLeases) {
		return "", fail(1, "Error: unexpectedly ended parsing the leases file")
	}
	c, err := m.config()
	if err != nil {
		return "", err
	}
	if ip, ok := t.faults.Leases[c.MAC]; ok {
		return ip, nil
	}
	if t.faults.NoIP {
		return "", nil
	}
	leases, err := t.leases()
	if err != nil {
		return "", err
	}
	return leases[c.MAC], nil
}
