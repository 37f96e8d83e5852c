package emulator_test

import (
	"context"
	"fmt"
	"log"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// A test of a runner manager: GitHub in memory, a job, a runner that the manager registers, and a fault that
// it has to bear.
func Example() {
	ctx := context.Background()
	e := emulator.New(emulator.Options{
		// The first registration is made and its reply lost, as others met it.
		Faults: []emulator.Fault{emulator.JITLostReply(1)},
	})

	// A job is queued.
	w, err := workflow.Parse("ci.yml", []byte(`
on: push
jobs:
  build:
    runs-on: [self-hosted, linux]
    steps:
      - run: make
`))
	if err != nil {
		log.Fatal(err)
	}
	run, err := e.Submit(w, "")
	if err != nil {
		log.Fatal(err)
	}

	// The manager, any client of GitHub's API: it registers a runner, and takes another name when it must.
	c, err := github.NewClient(e.Client()).WithEnterpriseURLs("http://emulator.test/", "http://emulator.test/")
	if err != nil {
		log.Fatal(err)
	}
	var config *github.JITRunnerConfig
	for try := 1; config == nil; try++ {
		config, _, err = c.Actions.GenerateRepoJITConfig(ctx, "octo", "demo", &github.GenerateJITConfigRequest{
			Name: fmt.Sprintf("runner-%d", try), RunnerGroupID: 1, Labels: []string{"self-hosted", "linux"},
		})
		fmt.Printf("try %d: registered %t\n", try, err == nil)
	}

	// The runner program: here one that only speaks the protocol, and whose job succeeds.
	if err := protorunner.Run(ctx, config.GetEncodedJITConfig(), protorunner.Options{Client: e.Client()}); err != nil {
		log.Fatal(err)
	}

	// What GitHub saw of it.
	state, err := e.WaitRun(ctx, run)
	if err != nil {
		log.Fatal(err)
	}
	for _, j := range state.Jobs {
		fmt.Printf("%s on %s: %s\n", j.Name, j.RunnerName, j.Conclusion)
	}
	for _, r := range e.State().Runners {
		fmt.Printf("still registered: %s\n", r.Name)
	}
	// Output:
	// try 1: registered false
	// try 2: registered true
	// build on runner-2: success
	// still registered: runner-1
}
