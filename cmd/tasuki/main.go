// Tasuki runs GitHub Actions jobs, each in a fresh virtual machine on the
// team's own hosts.
package main

import (
	"os"

	"github.com/mirego/tasuki/internal/cli"
)

func main() { os.Exit(cli.Main()) }
