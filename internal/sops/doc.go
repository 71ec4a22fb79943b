// Package sops reads files that SOPS has encrypted: it tells them from others, and has one of SOPS' own programs decrypt
// them. It does no cryptography, and links none of SOPS, which is three times the size of the plugin.
package sops
