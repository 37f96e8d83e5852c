// Package archtest is tests of the house itself: who may import whom, that
// every package says what it is, that each dependency is accounted for, and
// that the links of our documents lead somewhere.
//
// A layer is a set of packages with the same rights; table.go says which
// layer a package is in and what a layer may import. The tests read the tree
// themselves: one that ran go list would be fooled by the test cache. Files of
// tests may import what they like.
package archtest
