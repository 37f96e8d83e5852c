package github

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// runnerGroup is a runner group in GitHub's words. Pointers: older servers do
// not say it.
type runnerGroup struct {
	ID                int64  `json:"id"`
	Name              string `json:"name"`
	Default           bool   `json:"default"`
	Visibility        string `json:"visibility"` // all, private, selected
	PublicAllowed     *bool  `json:"allows_public_repositories"`
	OnlySomeWorkflows bool   `json:"restricted_to_workflows"`
}

// named says whether people mean this group by a name; empty is the default group.
func (g runnerGroup) named(name string) bool {
	if name == "" || strings.EqualFold(name, "default") {
		return g.Default || g.ID == defaultGroup
	}
	return strings.EqualFold(g.Name, name)
}

// group returns the id of a runner group.
func (c *Client) group(ctx context.Context, name string) (int64, error) {
	key := strings.ToLower(name)
	if key == "" || key == "default" {
		return defaultGroup, nil
	}
	if c.scope.repository() {
		return 0, fmt.Errorf("cannot use runner group %q with repository %s: groups belong to organisations; leave it out or name the organisation as the scope",
			name, c.scope.name)
	}
	c.mu.Lock()
	id, known := c.groups[key]
	c.mu.Unlock()
	if known {
		return id, nil
	}
	doing := fmt.Sprintf("find runner group %q", name)
	all, err := c.allGroups(ctx)
	if err != nil {
		return 0, c.explain(doing, err)
	}
	for _, g := range all {
		if g.named(name) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.groups[key] = g.ID
			return g.ID, nil
		}
	}
	return 0, c.explain(doing, fmt.Errorf("there is none of that name; there are: %s", groupNames(all)))
}

func groupNames(groups []runnerGroup) string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	return strings.Join(names, ", ")
}

// allGroups turns all pages.
func (c *Client) allGroups(ctx context.Context) (all []runnerGroup, err error) {
	for page := 1; page <= maxPages; page++ {
		var got struct {
			Groups *[]runnerGroup `json:"runner_groups"`
		}
		path := fmt.Sprintf("/actions/runner-groups?per_page=%d&page=%d", perPage, page)
		if _, err := c.call(ctx, http.MethodGet, path, nil, &got); err != nil {
			return nil, err
		}
		if got.Groups == nil {
			return nil, errNoAnswer
		}
		for _, g := range *got.Groups {
			if g.ID == 0 {
				return nil, errNoAnswer
			}
			all = append(all, g)
		}
		if len(*got.Groups) < perPage {
			break
		}
	}
	return all, nil
}

// admitted returns the repositories that a group is for, as "owner/name".
func (c *Client) admitted(ctx context.Context, group int64) (all []string, err error) {
	for page := 1; page <= maxPages; page++ {
		var got struct {
			Repositories *[]struct {
				FullName string `json:"full_name"`
			} `json:"repositories"`
		}
		path := fmt.Sprintf("/actions/runner-groups/%d/repositories?per_page=%d&page=%d", group, perPage, page)
		if _, err := c.call(ctx, http.MethodGet, path, nil, &got); err != nil {
			return nil, err
		}
		if got.Repositories == nil {
			return nil, errNoAnswer
		}
		for _, r := range *got.Repositories {
			all = append(all, r.FullName)
		}
		if len(*got.Repositories) < perPage {
			break
		}
	}
	return all, nil
}

func (c *Client) forgetGroup(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.groups, strings.ToLower(name))
}
