package workflow

import (
	"context"
	"errors"
	"io"
)

type (
	jobDef      struct{}
	instance    struct{}
	Token       struct{}
	ContextData struct{}
)

func (Token) MarshalJSON() ([]byte, error)       { return []byte("null"), nil }
func (ContextData) MarshalJSON() ([]byte, error) { return []byte("{}"), nil }

var errStub = errors.New("not built yet")

// Problem is one thing in a workflow that cannot be executed.
type Problem struct {
	File    string
	Line    int // from 1
	Col     int
	Key     string // the key it is about, such as jobs.build.services; may be empty
	Message string
}

// Problems is the error of Load and Parse: everything that is wrong at once.
type Problems []Problem

func (p Problems) Error() string { return "" }

// Workflow is a workflow file that was checked whole. It is immutable and safe for concurrent use.
type Workflow struct{ Name, File string }

// Load reads and checks a workflow file.
func Load(path string) (*Workflow, error) { return nil, errStub }

// Parse checks a workflow's text; name stands for its file in problems.
func Parse(name string, src []byte) (*Workflow, error) { return nil, errStub }

// Tree says which files the workflow's actions/checkout brings.
func (w *Workflow) Tree() Tree { return Tree{} }

// Tree is the tree that a workflow file lies in.
type Tree struct {
	Dir   string // the git work tree's top, or the folder
	Depth int    // commits of history to bring; 0 for all
}

// CheckoutArchive writes the action served as actions/checkout: a tar.gz with one top folder.
func CheckoutArchive(ctx context.Context, w io.Writer, tree Tree) error { return errStub }

// NewRun starts one run of the workflow.
func (w *Workflow) NewRun(c Context) (*Run, error) { return nil, errStub }

// Run is one run of a workflow. It is not safe for concurrent use: its owner holds a lock.
type Run struct{}

// Next returns the jobs that became ready since the last call.
func (r *Run) Next() []*Job { return nil }

// Conclude records what a job came to and returns the jobs to cancel because of it.
func (r *Run) Conclude(jobID, conclusion string, outputs map[string]string) (cancel []*Job) { return nil }

// Cancel cancels the run and returns the jobs to cancel: those whose `if` does not keep them.
func (r *Run) Cancel() []*Job { return nil }

// Jobs returns every job known so far, in the file's order.
func (r *Run) Jobs() []*Job { return nil }

// Done says whether every job has a conclusion.
func (r *Run) Done() bool { return true }

// Conclusion returns success, failure or cancelled once Done, and nothing before.
func (r *Run) Conclusion() string { return "" }

// Parts returns the message parts of a queued job.
func (j *Job) Parts() (Parts, error) { return Parts{}, errStub }
