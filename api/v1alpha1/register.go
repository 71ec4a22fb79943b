package v1alpha1

import "k8s.io/apimachinery/pkg/runtime/schema"

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: "v1alpha1"}

// ResourceEncryptedSecrets is the name of [EncryptedSecret] in the paths of the Kubernetes
// API.
const ResourceEncryptedSecrets = "encryptedsecrets"

// ResourceGitSources is the name of [GitSource] in the paths of the Kubernetes API.
const ResourceGitSources = "gitsources"
