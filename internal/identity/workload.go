// Package identity says which workload a SPIFFE ID belongs to.
package identity

// Workload is a Kubernetes workload as its owners name it: a service account
// (Name) in a namespace. It is what a Secret is readable by, and is comparable,
// so it may be a map key.
type Workload struct {
	Namespace string
	Name      string
}

// String gives "namespace/name", for logs and messages.
func (w Workload) String() string { return w.Namespace + "/" + w.Name }
