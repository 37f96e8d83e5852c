package config

import "github.com/mirego/tasuki/internal/base/problem"

// Problem is one mistake in a configuration file.
type Problem = problem.Problem

// Problems are all mistakes of a file, in its order.
type Problems = problem.List
