@echo off
rem Completes the arguments of "kubectl vsecm" for kubectl 1.26 and newer.
rem Not the one of the folder that one is in: that may be anybody's.
setlocal
set NoDefaultCurrentDirectoryInExePath=1
kubectl-vsecm.exe __complete %*
