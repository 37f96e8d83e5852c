// Package config is the YAML file of a host: what it may use, where its runners
// register, and which pools it keeps.
//
// A Config is the file with every default filled in. Load reads one strictly:
// an unknown key, a wrong type or a value that cannot work is a Problem with
// its line and its mend, and all problems of a file are reported at once. The
// defaults are in Default and nowhere else; the tags of the structs are the
// text of the reference (docs/reference/config.md).
//
// No secret stands in the file. A Source says where one is: in the
// environment, in a file that only its owner can read, or in the output of a
// command. It is read when it is needed and never kept.
//
// Keys below defaults are those of a pool. A pool's value takes the place of
// the default; a list replaces the list, a map adds to the map.
package config
