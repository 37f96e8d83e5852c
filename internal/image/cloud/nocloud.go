package cloud

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Seed is what a NoCloud medium tells cloud-init.
type Seed struct {
	// Instance is the machine's identity. cloud-init sets a machine up when it
	// sees a new one: above all the network, which it ties to the address of the
	// network card, so that each guest needs an identity of its own.
	Instance string
	Hostname string
	// User is made, may use sudo without a password, and logs in by Key, a line
	// of authorized_keys.
	User, Key string
}

// Write writes the seed as a medium: a new file with an ISO 9660 file system.
func (s Seed) Write(path string) error {
	// JSON is YAML, and quotes whatever it holds.
	userData, err := json.MarshalIndent(map[string]any{
		"hostname":   s.Hostname,
		"ssh_pwauth": false,
		"users": []any{map[string]any{
			"name": s.User, "gecos": "", "shell": "/bin/bash", "lock_passwd": true,
			"sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": []string{s.Key},
		}},
		"package_update": false,
		"growpart":       map[string]any{"mode": "auto", "devices": []string{"/"}},
	}, "", "  ")
	if err != nil {
		return err
	}
	metaData, err := json.Marshal(map[string]string{"instance-id": s.Instance, "local-hostname": s.Hostname})
	if err != nil {
		return err
	}
	medium := iso9660("cidata", []isoFile{
		{"meta-data", append(metaData, '\n')},
		{"user-data", append([]byte("#cloud-config\n"), append(userData, '\n')...)},
	})
	if err := os.WriteFile(path, medium, 0o600); err != nil {
		return fmt.Errorf("cannot write the NoCloud seed: %w", err)
	}
	return nil
}

// isoFile is one file in the root folder of an ISO 9660 file system.
type isoFile struct {
	name string
	data []byte
}

// What ISO 9660 (ECMA-119) fixes, and where this file system has its parts:
// descriptors at sector 16 and 17, the two path tables, the root folder, files.
const (
	isoSector    = 2048
	isoPrimary   = 16
	isoPathLE    = 18
	isoPathBE    = 19
	isoRoot      = 20
	isoFirstFile = 21
)

// iso9660 makes a file system with the given volume name and files, sorted by
// name and few enough for one sector of directory. The names are kept as they
// are, lower case and hyphens included, which ECMA-119 does not allow and every
// reader of Linux takes: cloud-init wants them so.
func iso9660(volume string, files []isoFile) []byte {
	root := isoRecord("\x00", isoRoot, isoSector, true)
	dir := append(append([]byte{}, root...), isoRecord("\x01", isoRoot, isoSector, true)...)
	at := isoFirstFile
	var content []byte
	for _, f := range files {
		dir = append(dir, isoRecord(f.name, at, len(f.data), false)...)
		sectors := (len(f.data) + isoSector - 1) / isoSector
		content = append(content, f.data...)
		content = append(content, make([]byte, sectors*isoSector-len(f.data))...)
		at += sectors
	}
	out := make([]byte, isoFirstFile*isoSector, at*isoSector)
	copy(out[isoPrimary*isoSector:], isoDescriptor(volume, at, root))
	copy(out[(isoPrimary+1)*isoSector:], "\xffCD001\x01") // the end of descriptors
	copy(out[isoPathLE*isoSector:], []byte{1, 0, isoRoot, 0, 0, 0, 1, 0, 0, 0})
	copy(out[isoPathBE*isoSector:], []byte{1, 0, 0, 0, 0, isoRoot, 0, 1, 0, 0})
	copy(out[isoRoot*isoSector:], dir)
	return append(out, content...)
}

// isoRecord is a directory record (ECMA-119, 9.1).
func isoRecord(name string, sector, size int, folder bool) []byte {
	r := make([]byte, 33+len(name)+(len(name)+1)%2)
	r[0] = byte(len(r))
	bothOrders(r[2:], sector)
	bothOrders(r[10:], size)
	copy(r[18:], []byte{126, 1, 1, 0, 0, 0, 0}) // 2026-01-01
	if folder {
		r[25] = 2
	}
	copy(r[28:], []byte{1, 0, 0, 1}) // volume 1
	r[32] = byte(len(name))
	copy(r[33:], name)
	return r
}

// isoDescriptor is the primary volume descriptor (ECMA-119, 8.4).
func isoDescriptor(volume string, sectors int, root []byte) []byte {
	d := make([]byte, isoSector)
	copy(d, "\x01CD001\x01")
	copy(d[8:], strings.Repeat(" ", 32))
	copy(d[40:], volume+strings.Repeat(" ", 32-len(volume)))
	bothOrders(d[80:], sectors)
	copy(d[120:], []byte{1, 0, 0, 1})
	copy(d[124:], []byte{1, 0, 0, 1})
	copy(d[128:], []byte{isoSector & 0xff, isoSector >> 8, isoSector >> 8, isoSector & 0xff})
	bothOrders(d[132:], 10) // the path table's length
	d[140], d[151] = isoPathLE, isoPathBE
	copy(d[156:], root[:34])
	copy(d[190:], strings.Repeat(" ", 623)) // names of sets, publishers and so on
	for _, date := range []int{813, 830, 847, 864} {
		copy(d[date:], "0000000000000000\x00")
	}
	d[881] = 1
	return d
}

// bothOrders writes a number in both byte orders, as ISO 9660 wants it.
func bothOrders(b []byte, n int) {
	for i := range 4 {
		b[i] = byte(n >> (8 * i))
		b[7-i] = byte(n >> (8 * i))
	}
}
