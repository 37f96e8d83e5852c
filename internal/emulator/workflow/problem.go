package workflow

import "github.com/mirego/tasuki/internal/base/problem"

// Problem is one thing in a workflow that is wrong or that this emulator does not do; Key says where in the
// file, such as jobs.build.services.
type Problem = problem.Problem

// Problems is the error that Load and Parse return: everything that is wrong, in the file's order.
type Problems = problem.List
