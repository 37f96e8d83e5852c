package workflow

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// harmless are the inputs of actions/checkout that are accepted and change nothing.
var harmless = []string{
	"token", "persist-credentials", "show-progress", "set-safe-directory", "fetch-tags", "filter",
	"lfs", // files in large file storage come as they are in the working tree
}

// anyway are the values of repository and ref that name what the checkout brings without them.
var anyway = map[string][]string{
	"repository": {"github.repository"},
	"ref":        {"github.ref", "github.sha", "github.ref_name", "github.head_ref"},
}

// checkouts gathers what the checkouts of one workflow need of its tree.
type checkouts struct {
	depth int // commits; 0 for all
}

func (c *checkouts) want(depth int) {
	switch {
	case c.depth == 0 || depth == 0:
		c.depth = 0
	default:
		c.depth = max(c.depth, depth)
	}
}

// checkoutInputs checks the with: of an actions/checkout.
func (c *stepCompiler) checkoutInputs(with *yaml.Node, keyPath string) {
	for k, v := range entries(with) {
		name, p := strings.ToLower(k.Value), keyPath+"."+k.Value
		text := strings.TrimSpace(v.Value)
		switch {
		case slices.Contains(harmless, name), name == "clean":
		case name == "path":
			c.checkoutPath(v, p)
		case name == "fetch-depth":
			depth, err := strconv.Atoi(text)
			if err != nil || depth < 0 {
				c.refuse(v, p, "not supported: a depth other than a plain number: %q", text)
				continue
			}
			c.checkouts.want(depth)
		case name == "submodules" && (text == "false" || text == ""):
		case anyway[name] != nil:
			if !names(text, anyway[name]) {
				c.refuse(v, p, "not supported: %q; the checkout always brings the tree that the workflow lies in", text)
			}
		default:
			c.refuse(k, p, "not supported by the checkout of this emulator")
		}
	}
}

// names says whether a text is nothing, or one ${{ }} with one of the expressions.
func names(text string, expressions []string) bool {
	if text == "" {
		return true
	}
	t, _, err := parseTemplate(text)
	return err == nil && t.kind == tokenExpr && slices.ContainsFunc(expressions, func(e string) bool {
		return strings.EqualFold(t.expr.Source(), e)
	})
}

func (c *stepCompiler) checkoutPath(v *yaml.Node, keyPath string) {
	if strings.Contains(v.Value, openExpr) {
		return // the action itself looks at it
	}
	dir := path.Clean(v.Value)
	if path.IsAbs(dir) || dir == ".." || strings.HasPrefix(dir, "../") {
		c.refuse(v, keyPath, "%q lies outside the workspace", v.Value)
		return
	}
	if dir != "." {
		c.roots = append(c.roots, dir)
	}
}

// checkoutAction is the action.yml served as actions/checkout. It needs a POSIX shell and coreutils, no git.
const checkoutAction = `name: Checkout
description: Brings the tree that the workflow lies in, as it was when the run began.
inputs:
  path: {description: Where to put the tree below the workspace, default: .}
  clean: {description: Whether to remove what lies there before, default: 'true'}
%soutputs:
  ref: {description: The ref of the run, value: '${{ github.ref }}'}
  commit: {description: The commit of the run, value: '${{ github.sha }}'}
runs:
  using: composite
  steps:
    - name: Copy the tree
      shell: sh
      env:
        CHECKOUT_ACTION: ${{ github.action_path }}
        CHECKOUT_PATH: ${{ inputs.path }}
        CHECKOUT_CLEAN: ${{ inputs.clean }}
      run: |
        set -eu
        from="${CHECKOUT_ACTION:-$GITHUB_ACTION_PATH}"
        case "/$CHECKOUT_PATH/" in
        //*/ | */../*)
          echo "::error::path lies outside the workspace: $CHECKOUT_PATH"
          exit 1 ;;
        esac
        case "$CHECKOUT_PATH" in
        '' | .) to="$GITHUB_WORKSPACE" ;;
        *) to="$GITHUB_WORKSPACE/$CHECKOUT_PATH" ;;
        esac
        mkdir -p "$to"
        if [ "$CHECKOUT_CLEAN" != false ]; then
          for old in "$to"/* "$to"/.[!.]* "$to"/..?*; do
            rm -rf "$old"
          done
        fi
        if [ -d "$from/tree" ]; then
          cp -Rp "$from/tree/." "$to/"
        fi
        if [ -d "$from/git" ]; then
          rm -rf "$to/.git"
          cp -Rp "$from/git" "$to/.git"
          # Runners drop empty folders when they unpack an action; git is no repository without these.
          mkdir -p "$to/.git/objects" "$to/.git/refs"
        fi
        echo "Brought the tree of $GITHUB_REPOSITORY to $to"
`

// checkoutActionFile declares the inputs without effect too, so that no runner warns about them.
func checkoutActionFile() []byte {
	declared := slices.Concat(harmless, []string{"fetch-depth", "submodules", "repository", "ref"})
	var b strings.Builder
	for _, name := range declared {
		fmt.Fprintf(&b, "  %s: {description: Without effect here, default: ''}\n", name)
	}
	return fmt.Appendf(nil, checkoutAction, b.String())
}
