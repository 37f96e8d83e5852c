// Package workflow knows the language of GitHub Actions workflows: it takes a workflow file and makes the
// jobs that GitHub would, without a network and without a clock.
//
// Its terms. A Workflow is a file that was read and checked whole. A Run is one execution of it. A Run's Jobs
// become ready one after the other, as what they need is concluded; a definition with a matrix becomes several
// Jobs. A Job's Parts are what its runner is sent. The Tree is the files that the workflow lies among.
//
// Who evaluates what follows GitHub: expressions about the job itself (name, runs-on, if, strategy,
// timeout-minutes, continue-on-error) are evaluated here, over the contexts github, needs, matrix, strategy,
// inputs and vars; expressions in steps, env, defaults and outputs travel as template Tokens, and the runner
// evaluates them.
//
// # What is supported
//
// Of a workflow: name, env, defaults, jobs, and the inputs of on.workflow_dispatch. Accepted without effect are
// the rest of on (a run is started by hand), run-name, permissions, and a concurrency of the whole workflow (two
// workflows of one group would run side by side).
//
// Of a job: name, needs, if, runs-on, env, defaults, outputs, strategy, timeout-minutes, continue-on-error,
// steps, and permissions without effect. Refused: services, container, environment, concurrency, uses
// (reusable workflows), snapshot.
//
// Of a step: everything. An action is actions/checkout (see CheckoutArchive) or a composite action of the tree,
// ./path, which is looked at beforehand with all that it uses; one that a step would have to fetch or generate
// is refused.
//
// What is refused is refused by Load, with file, line, column and key, before anything starts and all at
// once; so are expressions that GitHub would not accept. An expression that fails only when it is evaluated
// concludes its job as a failure, with the Reason.
package workflow
