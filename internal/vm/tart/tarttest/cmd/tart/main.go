// The program tart is Tasuki's test double of the tart command, built under
// that name so that a driver finds it on PATH. It is not tart.
package main

import (
	"os"

	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

func main() { os.Exit(tarttest.Main(os.Args[1:])) }
