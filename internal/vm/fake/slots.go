package fake

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/vm"
)

// Slots implements vm.SlotCounter: a file in the driver's folder says how many
// slots have leaked, so that the trouble can come and go while an agent runs.
func (d *Driver) Slots() vm.Slots {
	text, err := os.ReadFile(filepath.Join(d.dir, leakedFile))
	n, bad := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || bad != nil || n <= 0 {
		return vm.Slots{}
	}
	return vm.Slots{Leaked: n, Reason: fmt.Sprintf("%d slots leaked: %v", n, vm.ErrLeaked)}
}
