package github

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// classic is the scope that a classic token must have.
func (s scope) classic() string {
	switch {
	case s.repository():
		return "repo"
	case s.enterprise():
		return "manage_runners:enterprise"
	}
	return "admin:org"
}

// permissions are those that an App must have, with their level.
func (s scope) permissions() map[string]string {
	switch {
	case s.repository():
		return map[string]string{"administration": "write", "actions": "read"}
	case s.enterprise():
		return nil // GitHub names none for Apps
	}
	return map[string]string{"organization_self_hosted_runners": "write"}
}

// tokenPage is where the credential is made or changed.
func (k *check) tokenPage() string {
	s := k.c.scope
	switch {
	case k.c.id.app != nil && s.repository():
		return k.web + "/settings/installations"
	case k.c.id.app != nil:
		return k.web + "/organizations/" + s.owner() + "/settings/installations"
	case s.enterprise() || k.classic:
		return k.web + "/settings/tokens"
	}
	return k.web + "/settings/personal-access-tokens"
}

// repoReply is a repository in GitHub's words.
type repoReply struct {
	FullName string `json:"full_name"`
	Private  *bool  `json:"private"`
	Archived bool   `json:"archived"`
	Disabled bool   `json:"disabled"`
}

func (r repoReply) public() bool { return r.Private != nil && !*r.Private }

// name is the repository that the trial is about; "" if none is.
func (k *check) name() string {
	if k.c.scope.repository() {
		return k.c.scope.name
	}
	return k.t.Repository
}

// repository looks at the repository whose jobs are meant.
func (k *check) repository(ctx context.Context) bool {
	const step = "repository"
	name := k.name()
	if name == "" {
		return true
	}
	repo, known := k.repo(ctx, name)
	page := k.web + "/" + name
	switch {
	case !known:
		return k.say(step, Unknown, name+" cannot be looked at with this credential", "", "")
	case repo.Archived || repo.Disabled:
		return k.say(step, Wrong, name+" is archived or disabled: no workflow runs there", "unarchive it", page+"/settings")
	}
	var actions struct {
		Enabled *bool `json:"enabled"`
	}
	if _, err := k.get(ctx, "repos/"+name+"/actions/permissions", &actions); err == nil && actions.Enabled != nil && !*actions.Enabled {
		return k.say(step, Wrong, "GitHub Actions is switched off in "+name, "allow it", page+"/settings/actions")
	}
	if repo.public() {
		return k.say(step, Warning, name+" is public: a pull request of a stranger can run on this host",
			"require approval for all outside contributors, and keep the pool's network isolated", page+"/settings/actions")
	}
	return k.say(step, OK, name+" is private", "", "")
}

func (k *check) repo(ctx context.Context, name string) (repoReply, bool) {
	var repo repoReply
	_, err := k.get(ctx, "repos/"+name, &repo)
	return repo, err == nil && repo.FullName != ""
}

// group looks at the runner group and whom it admits.
func (k *check) group(ctx context.Context) bool {
	const step = "runner group"
	if k.c.scope.repository() {
		if k.t.Group != "" {
			return k.say(step, Wrong, "a repository has no runner groups", "remove group, or name the organisation as the scope", "")
		}
		return true
	}
	all, err := k.c.allGroups(ctx)
	if err != nil {
		if k.t.Group == "" {
			return k.say(step, Unknown, "the groups cannot be listed; runners join the default one", "", "")
		}
		return k.say(step, Wrong, k.c.meaning(err).Error(), "give the credential the permission that the message names", k.tokenPage())
	}
	i := slices.IndexFunc(all, func(g runnerGroup) bool { return g.named(k.t.Group) })
	if i < 0 {
		return k.say(step, Wrong, fmt.Sprintf("there is no group %q; there are: %s", k.t.Group, groupNames(all)),
			"make it, or correct the pool's group", k.settings("runner-groups"))
	}
	return k.admits(ctx, all[i])
}

// admits says which repositories may use a group.
func (k *check) admits(ctx context.Context, g runnerGroup) bool {
	const step = "runner group"
	page := k.settings(fmt.Sprintf("runner-groups/%d", g.ID))
	text := fmt.Sprintf("%q", g.Name)
	if g.OnlySomeWorkflows {
		k.say(step, Warning, text+" serves selected workflows only", "add yours there, or let it serve all", page)
	}
	public := ", public ones too"
	switch {
	case g.PublicAllowed == nil:
		public = ""
	case !*g.PublicAllowed:
		public = ", and no public one"
	}
	if k.c.scope.enterprise() {
		return k.say(step, OK, text+" exists", "", "") // it admits organisations, whose groups admit repositories
	}
	if repo, known := k.meant(ctx); known && repo.public() && g.PublicAllowed != nil && !*g.PublicAllowed {
		return k.say(step, Wrong, fmt.Sprintf("%s does not admit public repositories, and %s is one: its jobs wait for ever", text, repo.FullName),
			"allow public repositories, if you trust whoever opens pull requests", page)
	}
	switch g.Visibility {
	case "selected":
		return k.admitsSelected(ctx, g, text, public, page)
	case "private":
		return k.say(step, OK, text+" admits all private repositories"+public, "", "")
	}
	return k.say(step, OK, text+" admits all repositories"+public, "", "")
}

// meant returns the repository that the trial names.
func (k *check) meant(ctx context.Context) (repoReply, bool) {
	if k.t.Repository == "" {
		return repoReply{}, false
	}
	return k.repo(ctx, k.t.Repository)
}

func (k *check) admitsSelected(ctx context.Context, g runnerGroup, text, public, page string) bool {
	const step = "runner group"
	names, err := k.c.admitted(ctx, g.ID)
	if err != nil {
		return k.say(step, Unknown, text+" admits selected repositories, which cannot be listed", "", page)
	}
	want := k.t.Repository
	switch {
	case len(names) == 0:
		return k.say(step, Wrong, text+" admits no repository: every job waits for ever", "select some, or admit all", page)
	case want != "" && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, want) }):
		return k.say(step, Wrong, fmt.Sprintf("%s does not admit %s: its jobs wait for ever", text, want), "select it there", page)
	}
	return k.say(step, OK, fmt.Sprintf("%s admits %d selected repositories%s", text, len(names), public), "", "")
}
