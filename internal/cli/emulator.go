package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

func newEmulator(a *app) *cobra.Command {
	var f emulatorFlags
	cmd := &cobra.Command{
		Use:   "emulator [WORKFLOW...]",
		Short: "Be GitHub Actions on this machine: no account, no internet",
		Long: "Be GitHub Actions on this machine: the REST API for self-hosted runners, scale sets and what runner programs speak.\n" +
			"The jobs of the workflows are queued at once. It forgets everything when it ends. GET /_emulator/state\n" +
			"tells what it knows, as JSON.",
		Example: "  tasuki emulator --listen 127.0.0.1:8080 .github/workflows/ci.yml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runEmulator(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`address` to listen on; port 0 takes a free one")
	flags.StringVar(&f.advertise, "advertise", "", "`URL` under which runners reach it, where it differs")
	flags.StringVar(&f.repository, "repository", "octo/demo", "the one repository that there is")
	flags.StringSliceVar(&f.groups, "group", nil, "names of runner groups beside Default")
	flags.StringVar(&f.faultsFile, "faults", "", "`file` with what goes wrong, YAML or JSON; docs/emulator.md says how to write it")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with the token that REST calls must carry")
	f.more(flags)
	flags.BoolVar(&f.exit, "exit", false, "end when all jobs are over, with status 1 if one failed")
	return cmd
}

func (a *app) runEmulator(ctx context.Context, f emulatorFlags, files []string) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	if f.exit && len(files) == 0 {
		return withHint(errors.New("there are no jobs to wait for"), "name a workflow file, or leave --exit out")
	}
	workflows, err := readWorkflows(files)
	if err != nil {
		return err
	}
	opt, err := f.options(ctx)
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	l, err := listenTCP(ctx, f.listen)
	if err != nil {
		return err
	}
	address := strings.TrimRight(f.advertise, "/")
	if address == "" {
		address = "http://" + l.Addr().String()
	}
	opt.AdvertiseURL, opt.Log = address, log
	e := emulator.New(opt)
	fmt.Fprintf(a.stdout, "emulator on http://%s, repository %s\n", l.Addr(), f.repository)

	life, end := context.WithCancel(ctx)
	defer end()
	var serveErr error
	var work sync.WaitGroup
	work.Go(func() { serveErr = e.Run(life, l); end() })
	runErr := a.runWorkflows(life, e, workflows, f.exit)
	if f.exit || runErr != nil {
		end()
	}
	work.Wait()
	if errors.Is(runErr, errNo) && serveErr == nil {
		return runErr
	}
	if ended(ctx, runErr) {
		runErr = nil
	}
	return errors.Join(serveErr, runErr)
}

// readWorkflows reads every file, so that all problems are told at once.
func readWorkflows(files []string) ([]*workflow.Workflow, error) {
	var out []*workflow.Workflow
	var problems workflow.Problems
	for _, file := range files {
		w, err := workflow.Load(file)
		if more, ok := errors.AsType[workflow.Problems](err); ok {
			problems = append(problems, more...)
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return out, nil
}

// runWorkflows queues the workflows and, if asked to wait, says how each ended.
func (a *app) runWorkflows(ctx context.Context, e *emulator.Emulator, workflows []*workflow.Workflow, wait bool) error {
	var runs []int64
	for _, w := range workflows {
		id, err := e.Submit(w, "")
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "run %d queued: %s\n", id, w.File)
		runs = append(runs, id)
	}
	if !wait {
		return nil
	}
	failed := false
	for _, id := range runs {
		run, err := e.WaitRun(ctx, id)
		if err != nil {
			return err
		}
		for _, j := range run.Jobs {
			fmt.Fprintf(a.stdout, "run %d: %s: %s\n", id, oneLine(j.Name), j.Conclusion)
		}
		failed = failed || run.Conclusion != "success"
	}
	if failed {
		return errNo
	}
	return nil
}
