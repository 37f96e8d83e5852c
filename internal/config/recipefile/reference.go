package recipefile

import (
	"fmt"
	"strings"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/recipe"
)

// Reference returns the reference of the file as Markdown, made from the
// structs and their tags. docs/reference/recipe.md is a copy.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	config.ReferenceTable(&b, "the file", "Recipe", Default())
	config.ReferenceTable(&b, "disk", "Disk", Files{})
	config.ReferenceTable(&b, "disk.amd64, steps[].runner.amd64", "amd64", Download{})
	config.ReferenceTable(&b, "disk.arm64, steps[].runner.arm64", "arm64", Download{})
	config.ReferenceTable(&b, "debian", "Debian", Debian{Release: defaultRelease})
	config.ReferenceTable(&b, "login", "Login", Login{})
	config.ReferenceTable(&b, "guest", "Guest", Default().Guest)
	config.ReferenceTable(&b, "guest.network", "Network", Default().Guest.Network)
	config.ReferenceTable(&b, "guest.network.forwards[]", "Forwards", config.Forward{})
	config.ReferenceTable(&b, "steps[]", "Steps", Step{Timeout: config.Duration(recipe.DefaultTimeout)})
	config.ReferenceTable(&b, "steps[].copy[]", "Copy", Copy{})
	config.ReferenceTable(&b, "steps[].runner", "Runner", Runner{Dir: defaultRunnerDir, Kind: image.RunnerOfficial})
	config.ReferenceTable(&b, "secrets.NAME, login.password", "Secrets", config.Source{})
	fmt.Fprint(&b, referenceTail)
	return b.String()
}

const referenceHead = `# The recipe file

<!-- Generated from internal/config/recipefile by "go test ./internal/config/recipefile -update". Do not edit. -->

` + "`tasuki image build RECIPE.yaml` builds a guest image of it; [the guest's guide](../guest.md#make-your-own) shows how.\nRecipes that come with Tasuki are in [recipes](../../recipes).\n" + `
The file is strict: an unknown key is a mistake. It begins with one of ` + "`from`, `disk` and\n`debian`" + `. Durations are written ` + "`90s`, `30m` or `6h`; sizes `4GiB` or `80GB`" + `.

`

const referenceTail = `## Scripts

A script runs with ` + "`sh -e`" + `, in the home of the image's user, with an empty standard input. One that begins with ` + "`#!`" + ` is
run by what it names there. Its environment has ` + "`env`" + ` of the recipe, the variables whose names stand in the script, ` + "`env`" + `
of the step, and the step's secrets.
`
