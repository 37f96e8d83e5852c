// Protorunner is package protorunner as a program: it takes the JIT configuration from
// ACTIONS_RUNNER_INPUT_JITCONFIG, executes one job by letting time pass, and exits 0 once it is reported.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

const (
	jitVariable        = "ACTIONS_RUNNER_INPUT_JITCONFIG"
	deprecatedVariable = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE"
)

func main() { os.Exit(run()) }

func run() int {
	hold := flag.Duration("hold", 0, "how long the job runs")
	conclusion := flag.String("conclusion", "succeeded", "how it ends: succeeded, failed, canceled or skipped")
	flag.Parse()
	config := os.Getenv(jitVariable)
	if config == "" || flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "protorunner: set %s to a JIT configuration; there are flags only, no arguments\n", jitVariable)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := protorunner.Run(ctx, config, protorunner.Options{Hold: *hold, Conclusion: *conclusion, Output: os.Stdout})
	if errors.Is(err, protorunner.ErrDeprecated) && os.Getenv(deprecatedVariable) == "1" {
		return 7 // the official runner's
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "protorunner: %v\n", err)
		return 1
	}
	return 0
}
