package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// reference returns the reference of the command line as Markdown, made from
// the commands. docs/reference/cli.md is a copy.
func reference(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString("# The command line\n\n<!-- Generated from internal/cli by \"go test ./internal/cli -update\". Do not edit. -->\n\n" +
		"Results go to stdout, talk to stderr. The exit status is 0 if all is well, 1 if a job failed or the\n" +
		"answer is no, 2 for trouble; `tasuki ssh` has the status of the command in the guest.\n\n" +
		"Flags of every command:\n\n")
	flagTable(&b, root.PersistentFlags())
	b.WriteString("\n")
	for _, cmd := range allCommands(root) {
		section(&b, cmd)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// allCommands returns what a user can call, parents before children.
func allCommands(root *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, cmd := range root.Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		// One that has subcommands, and flags of its own, does something itself.
		if !cmd.HasSubCommands() || cmd.LocalNonPersistentFlags().HasAvailableFlags() {
			out = append(out, cmd)
		}
		out = append(out, allCommands(cmd)...)
	}
	return out
}

func section(b *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(b, "## %s\n\n", cmd.CommandPath())
	fmt.Fprintf(b, "    %s\n\n", cmd.UseLine())
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	b.WriteString(escape(text) + "\n\n")
	if cmd.LocalNonPersistentFlags().HasAvailableFlags() {
		flagTable(b, cmd.LocalNonPersistentFlags())
		b.WriteByte('\n')
	}
	if cmd.Example != "" {
		b.WriteString("```sh\n" + dedent(cmd.Example) + "\n```\n\n")
	}
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| Flag | Default | Meaning |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		flag := "`--" + f.Name
		if f.Shorthand != "" {
			flag = "`-" + f.Shorthand + "`, " + flag
		}
		if name != "" {
			flag += " " + strings.ToUpper(name)
		}
		value := f.DefValue
		switch {
		case f.Name == "home" && f.DefValue != "":
			value = "~/.tasuki"
		case value == "false" || value == "[]" || value == "0s":
			value = ""
		}
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(b, "| %s` | %s | %s |\n", flag, value, escape(usage))
	})
}

// escape keeps Markdown from reading markup into plain text.
func escape(text string) string {
	return strings.NewReplacer("<", "&lt;", "*", `\*`, "|", `\|`, "_", `\_`).Replace(text)
}

func dedent(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		lines = append(lines, strings.TrimPrefix(line, "  "))
	}
	return strings.Join(lines, "\n")
}
