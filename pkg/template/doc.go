// Package template makes the delivered keys of an EncryptedSecret out of its sealed values, as spec.template says:
// docs/templates.md.
//
// A template comes from a repository and may be hostile. What it does is counted, not timed: the same template with the
// same values ends in the same way on every replica, however busy the machine is. It has no functions but pure
// ones, no recursion, and bounds on its text, its steps, the bytes that it touches and those that it prints.
//
// No error of this package holds anything of a value, or anything that was made from one.
package template
