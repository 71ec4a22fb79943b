//go:build linux

package node

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Container is a running container of one process, as the kernel sees it.
type Container struct {
	id  string
	PID int
}

// Container finds one by its id, as Kubernetes reports it.
func (*Node) Container(id string) (*Container, error) {
	c := &Container{id: strings.TrimPrefix(id, "containerd://")}
	processes, err := os.ReadFile(c.cgroup("pids", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	if c.PID, err = strconv.Atoi(string(bytes.TrimSpace(processes))); err != nil {
		return nil, fmt.Errorf("not one process in container %s: %w", c.id, err)
	}
	return c, nil
}

func (c *Container) cgroup(controller, file string) string {
	return filepath.Join("/sys/fs/cgroup", controller, "k8s.io", c.id, file)
}

// Status returns the fields of the process's status, see proc(5).
func (c *Container) Status() (map[string]string, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID))
	if err != nil {
		return nil, err
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields, nil
}

// Mounts returns the options of what is mounted for the process, by the place
// where it is.
func (c *Container) Mounts() (map[string]string, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/mounts", c.PID))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	mounts := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if fields := strings.Fields(lines.Text()); len(fields) > 3 {
			mounts[fields[1]] = fields[3]
		}
	}
	return mounts, lines.Err()
}

// CPUShares returns the weight that the container's request for CPU became.
func (c *Container) CPUShares() (int, error) {
	content, err := os.ReadFile(c.cgroup("cpu", "cpu.shares"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(content)))
}

// WorkingSet returns how much memory Kubernetes says the container uses, in
// bytes: all that is charged to it, but for file pages that nobody has used
// lately.
func (c *Container) WorkingSet() (int64, error) {
	content, err := os.ReadFile(c.cgroup("memory", "memory.usage_in_bytes"))
	if err != nil {
		return 0, err
	}
	usage, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64)
	if err != nil {
		return 0, err
	}
	stat, err := os.ReadFile(c.cgroup("memory", "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(stat)) {
		if value, found := strings.CutPrefix(line, "total_inactive_file "); found {
			inactive, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return usage - inactive, err
		}
	}
	return 0, fmt.Errorf("no total_inactive_file in memory.stat of container %s", c.id)
}
