using 'main.bicep'

param machines = ['cpu', 't4']
