@echo off
rem Completes the arguments of "kubectl vsecm" for kubectl 1.26 and newer.
kubectl-vsecm.exe __complete %*
