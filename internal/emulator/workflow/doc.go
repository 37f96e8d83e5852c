// Package workflow knows the language of GitHub Actions workflows: it takes a workflow file and makes the
// jobs that GitHub would, without a network and without a clock.
//
// Its terms. A Workflow is a file that was read and checked whole: what this package does not support is
// refused with its place before anything starts. A Run is one execution of it. A Run's Jobs become ready
// one after the other, as what they need is concluded; a job definition with a matrix becomes several Jobs.
// A Job's Parts are what its runner is sent.
//
// Who evaluates what follows GitHub: expressions about the job itself (name, runs-on, if, strategy,
// timeout-minutes, continue-on-error) are evaluated here, over the contexts github, needs, matrix, strategy,
// inputs and vars; expressions in steps, env, defaults and outputs travel as template Tokens, and the runner
// evaluates them.
package workflow
